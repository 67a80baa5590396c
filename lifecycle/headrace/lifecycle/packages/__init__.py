"""Model packages: made of model files and of other packages, tried out, and put into a model directory whole."""
