"""Encoded images as inputs, by the recipe of the package: opened, turned, resized, cropped and normalized."""
