"""Parts of resilience.py: each measures one promise about bad times, against real servers behind the chaos proxies."""
