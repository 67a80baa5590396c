"""What `celery -A` loads: the rival's app with its Redis results."""

import os

from online_parts.celery_app import make_app

app = make_app(os.environ["RIVAL_RESULTS"])
