"""A plug-in that cannot be imported."""

raise RuntimeError("this module falls over")
