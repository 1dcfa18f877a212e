"""`python -m geluwatch` is the command line."""

from geluwatch.cli.main import main

raise SystemExit(main())
