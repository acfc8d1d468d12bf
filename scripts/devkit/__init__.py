"""The library behind the scripts. Data flows one way: answers, keys, material, site, facts, report."""
