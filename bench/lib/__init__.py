"""The parts of bench/echo: what is measured (rows), with what (servers, idle), how it is judged
(stats, compare), and how it is told (report)."""
