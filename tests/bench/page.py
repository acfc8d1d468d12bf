"""docs/speed.md, as a run of the benchmark writes it. Pure."""

from tests.bench.measurements import Report, grids

TEXT = """\
# How fast it is

`make bench` wrote this page from one run on {report.date}, on {report.machine.processors} processors \
({report.machine.processor}) with Linux {report.machine.kernel}:
`{report.command}`.

![Throughput of one TCP stream: ours beside its peers](speed.png)

What is measured:

{paths}

Stock clients and a real Docker engine are in network namespaces of one machine, with a veth pair of MTU 1500 between
them, and behind them are containers in networks of MTU 1500 and 9000. What forwards a published port on a Mac is in
none of these paths, nor is the lab's stand-in for it.

Every path was measured in each of {rounds} rounds. The tables have the medians. What is "ours / no relay" is the median
of the rounds' own ratios; for a round trip it is how much longer ours takes. There is a ratio only where both were
measured under the same conditions. The load of the machine is how many processes wanted a processor in the minute
before a measurement, those of the benchmark among them: {load} in this run. Where it is not alike, or above the number
of processors, others' work is in the figures. They differ from machine to machine and from run to run: the ratios
count.

A cold start has to build the images, of packages that are there already; a warm one has them. A GB is one that
arrived, and what the kernel does in its own time is in no program's seconds.

{tables}
"""


def of(report: Report) -> str:
    """The page."""
    loads = sorted(one.conditions.load for one in report.measurements)
    return TEXT.format(
        report=report,
        rounds=max(one.conditions.round for one in report.measurements),
        load=f"{loads[0]:g} to {loads[-1]:g}",
        paths="\n".join(f"- **{name}**: {what}" for name, what in report.paths.items()),
        tables="\n\n".join(f"## {grid.title}\n\n{grid.for_page()}" for grid in grids(report)),
    )
