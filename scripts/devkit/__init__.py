"""The library behind the scripts. Data flows one way: answers, material, rendering, stack, report."""
