"""A view for learners: the recorded ops and their gradients, as a table and as a picture."""

from polynet.view.recorded import Line, Record, record

__all__ = ["Line", "Record", "record"]
