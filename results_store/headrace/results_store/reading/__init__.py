"""Reading predictions and counting them."""
