"""The models that a worker serves: loaded on demand, checked, and limited in their batch sizes."""
