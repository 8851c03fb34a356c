"""The table as text and the plot of the hits as SVG."""


def figure(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def line(row):
    peer = f"{figure(row['peer'])} {row['unit']}" if row["peer"] else ""
    ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
    verdict = {None: "", True: "ok", False: "missed"}[row["met"]]
    return [row["what"], f"{figure(row['ours'])} {row['unit']}", peer, row["of"] or "", ratio, row["target"] or "", verdict,
            row["note"]]


HEAD = ["what", "nearside", "peer", "", "ratio", "target", "", ""]


def table(rows):
    lines = [HEAD, *map(line, rows)]
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(HEAD))]
    left = (0, 3, 5, 6, 7)
    return "\n".join("  ".join(cell.ljust(w) if i in left else cell.rjust(w)
                               for i, (cell, w) in enumerate(zip(cells, widths))).rstrip() for cells in lines)


def markdown(rows):
    """The table for docs/benchmarks.md."""
    lines = ["| what | nearside | peer | ratio | target | |", "|---|---|---|---|---|---|"]
    for row in rows:
        what, ours, peer, of, ratio, target, verdict, note = line(row)
        lines.append(f"| {what} | {ours} | {peer} {of} | {ratio} | {target}{', ' if verdict else ''}{verdict} | {note} |")
    return "\n".join(lines)


def plot(rows):
    """CPU per GET against redis-server: one bar for each depth and server, 1.0 is redis-server."""
    bars = {}
    for row in rows:
        what = row["what"]
        if not what.startswith("hit, CPU per GET, depth ") or "Unix" in what:
            continue
        depth = what.rsplit(" ", 1)[1]
        group = bars.setdefault(depth, {"nearside": row["ours"]})
        group[row["of"]] = row["peer"]
    colours = {"nearside": "#2a6f97", "redis-server": "#c1121f", "haproxy": "#999999", "twemproxy": "#c9a227",
               "bare Tokio": "#74a892"}
    # Ratios above the top are cut off; the number says how much.
    top, height, out = 2.0, 160, []
    x = 50
    for depth, group in bars.items():
        start = x
        for name in (name for name in colours if name in group):
            ratio = group[name] / group["redis-server"]
            tall = min(ratio, top) / top * height
            y = 200 - tall
            out.append(f'<rect x="{x}" y="{y:.0f}" width="34" height="{tall:.0f}" fill="{colours[name]}"/>')
            out.append(f'<text x="{x + 17}" y="{y - 4:.0f}" text-anchor="middle">{ratio:.2f}</text>')
            x += 38
        out.append(f'<text x="{(start + x) / 2:.0f}" y="216" text-anchor="middle">depth {depth}</text>')
        x += 28
    key = 50
    for name in (name for name in colours if any(name in group for group in bars.values())):
        out.append(f'<rect x="{key}" y="232" width="10" height="10" fill="{colours[name]}"/>')
        out.append(f'<text x="{key + 14}" y="241">{name}</text>')
        key += 110
    width = max(x, key)
    one = 200 - height / top
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="256" font-family="sans-serif" font-size="11">',
        '<title>CPU time per GET of a cached key, redis-server = 1, by pipeline depth; less is better</title>',
        f'<rect width="{width}" height="256" fill="white"/>',
        '<text x="50" y="16" font-size="13">CPU time per GET, redis-server = 1 (less is better)</text>',
        f'<line x1="40" x2="{x - 20}" y1="{one:.0f}" y2="{one:.0f}" stroke="#555" stroke-dasharray="4 3"/>',
        f'<line x1="40" x2="{x - 20}" y1="200" y2="200" stroke="#555"/>',
        *out, "</svg>", ""])
