"""Where torch lives: finding the GELUs of a model and watching them from forward hooks.

`discover` finds the sites, `hooks` are what runs inside the model, `guard` and `rows` are what they do there,
`source` puts them on and takes them off and is the door (`ports.Source`) to everything behind.
"""
