"""Measurements of the whole product on real servers, beside Celery. Run them with ``python -m bench``."""
