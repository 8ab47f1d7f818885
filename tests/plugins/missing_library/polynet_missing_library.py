"""A plug-in that imports its library without asking whether it is there."""

import a_library_that_nobody_has

load = a_library_that_nobody_has.Backend
