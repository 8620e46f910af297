"""The online side: two stages as Ray Serve deployments, a gateway before them, a page to look at."""
