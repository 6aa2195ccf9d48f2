"""The lab: a network at work, in the browser, served to this machine alone.

The only room that knows Starlette and uvicorn. The server answers from `record`, `summarize`, `explain`,
`receptive_field` and `predict`; what is drawn, `static/` draws.
"""

from convscope.lab.app import make_app
from convscope.lab.guard import Door
from convscope.lab.server import export_page, open_lab, serve, server_of
from convscope.lab.session import Session

__all__ = ["Door", "Session", "export_page", "make_app", "open_lab", "serve", "server_of"]
