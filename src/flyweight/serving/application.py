"""The whole HTTP side of a worker: inference first, then the other routes."""

from flyweight.serving.admin_routes import AdminRoutes
from flyweight.serving.administration import Administration
from flyweight.serving.answering import Desk
from flyweight.serving.docs_page import docs_routes
from flyweight.serving.infer_route import App, first_infer
from flyweight.serving.page_routes import page_routes
from flyweight.serving.rank_route import RankRoute
from flyweight.serving.routes import Protocol, application
from flyweight.serving.status_routes import StatusRoutes


def build_application(desk: Desk, administration: Administration, status: StatusRoutes) -> App:
    """Return the ASGI application of a worker, without its guard."""
    routes = [
        *Protocol(desk, administration).routes(),
        *RankRoute(desk).routes(),
        *docs_routes(desk.repository),
        *status.routes(),
        *page_routes(),
        *AdminRoutes(desk.repository, administration).routes(),
    ]
    return first_infer(desk, application(routes))
