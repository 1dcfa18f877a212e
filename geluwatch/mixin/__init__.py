"""Generators of everything around the metrics: dashboards, alerts, rule tests and runbooks, from the catalogue.

`build.render_all` is the way in. Metric names come from `geluwatch.catalog`, PromQL is written in `queries`,
prose in `templates`. Nothing here imports a framework, a database or an exporter.
"""
