"""The rows that dashboards are put together from, a module for each subject."""
