"""A web page and a JSON endpoint that classify pictures with a trained network."""
