"""Recipes: the catalog of named ones, and what carries them out."""
