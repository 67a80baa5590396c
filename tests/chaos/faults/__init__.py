"""How each fault is done to a world: to its workers, to its servers, and to the wire between them."""
