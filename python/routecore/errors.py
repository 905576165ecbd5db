"""The one error of the package."""


class RouteError(ValueError):
    """No endpoint can be chosen, or a parameter or column is wrong; the text names which."""
