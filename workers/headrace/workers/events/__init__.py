"""What Flower and `celery inspect` see."""
