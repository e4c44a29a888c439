"""The parts of a dashboard: what every panel of one kind has in common stands here once.

A dashboard is a list of rows, and a row is a list of panels of one height that share its 24 columns. Every panel says
in `help` what it shows and what to do about it. A time series is (legend, query); `{{label}}` in a legend is filled in.
"""

PROMETHEUS = {"type": "prometheus", "uid": "quipu-prometheus"}
POSTGRESQL = {"type": "grafana-postgresql-datasource", "uid": "quipu-postgresql"}

COLUMNS = 24
STAT_HEIGHT, GRAPH_HEIGHT, TABLE_HEIGHT, ONE_ROW_HEIGHT = 4, 8, 9, 4

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"

# Properties of a column: a time shown as how long ago it is, bytes, seconds, milliseconds.
AGO, BYTES, SECONDS, MILLISECONDS = ({"unit": unit} for unit in ("dateTimeFromNow", "bytes", "s", "ms"))

# Steps of colour for a value: it has the colour of the last step that it has reached; the first step has no bound.
PLAIN = [(None, BLUE)]
GOOD_AT_1 = [(None, RED), (1, GREEN)]
BAD_ABOVE_0 = [(None, GREEN), (1, RED)]


def rising(warning, critical):
    """Colours of a value that is worse the higher it is."""
    return [(None, GREEN), (warning, YELLOW), (critical, RED)]


def falling(critical, warning):
    """Colours of a value that is worse the lower it is."""
    return [(None, RED), (critical, YELLOW), (warning, GREEN)]


def _field(unit, steps, **more):
    return {
        "unit": unit,
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": color} for value, color in steps],
        },
        **more,
    }


def _metric_targets(queries, instant):
    return [
        {
            "refId": chr(ord("A") + place),
            "datasource": PROMETHEUS,
            "editorMode": "code",
            "expr": query,
            "legendFormat": legend,
            "instant": instant,
            "range": not instant,
        }
        for place, (legend, query) in enumerate(queries)
    ]


def _sql_target(sql, form):
    return [
        {
            "refId": "A",
            "datasource": POSTGRESQL,
            "editorMode": "code",
            "rawQuery": True,
            "rawSql": sql,
            "format": form,
        }
    ]


def _panel(kind, height, title, help, datasource, targets, options, defaults, overrides=(), **more):
    return {
        "type": kind,
        "title": title,
        "description": help,
        "datasource": datasource,
        "targets": targets,
        "options": options,
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "gridPos": {"h": height, "w": 0, "x": 0, "y": 0},
        **more,
    }


def _stat(title, help, datasource, targets, unit, steps, names, decimals, empty):
    mappings = [
        {"type": "value", "options": {str(value): {"text": text} for value, text in (names or {}).items()}}
    ]
    more = {"mappings": mappings} if names else {}
    if decimals is not None:
        more["decimals"] = decimals
    if empty:
        more["noValue"] = empty
    return _panel(
        "stat",
        STAT_HEIGHT,
        title,
        help,
        datasource,
        targets,
        {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "orientation": "auto",
            "textMode": "auto",
            "wideLayout": True,
            "colorMode": "background",
            "graphMode": "none",
            "justifyMode": "center",
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        },
        _field(unit, steps, color={"mode": "thresholds"}, **more),
    )


def stat(title, query, help, unit="short", steps=PLAIN, names=None, decimals=None, empty=None):
    """One number. `names` replaces values by words, such as {0: "down", 1: "up"}; `empty` stands for no value."""
    targets = _metric_targets([("", query)], True)
    return _stat(title, help, PROMETHEUS, targets, unit, steps, names, decimals, empty)


def sql_stat(title, sql, help, unit="short", steps=PLAIN, names=None, decimals=None, empty=None):
    """One number that a query of one row and one column gives."""
    return _stat(title, help, POSTGRESQL, _sql_target(sql, "table"), unit, steps, names, decimals, empty)


def _graph(title, help, datasource, targets, unit, steps, stacked, bars, low):
    defaults = _field(
        unit,
        steps or PLAIN,
        color={"mode": "palette-classic"},
        custom={
            "drawStyle": "bars" if bars else "line",
            "lineInterpolation": "linear",
            "lineWidth": 0 if bars else 1,
            "fillOpacity": 70 if bars else (25 if stacked else 8),
            "showPoints": "never",
            "spanNulls": False,
            "axisPlacement": "auto",
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if steps else "off"},
        },
    )
    if low is not None:
        defaults["min"] = low
    return _panel(
        "timeseries",
        GRAPH_HEIGHT,
        title,
        help,
        datasource,
        targets,
        {
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
                "sortBy": "Last *",
                "sortDesc": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        defaults,
    )


def graph(title, queries, help, unit="short", steps=None, stacked=False, low=0):
    """Series over time. `steps` draws thresholds; `low` is the axis' lower end, None lets it follow the values."""
    return _graph(title, help, PROMETHEUS, _metric_targets(queries, False), unit, steps, stacked, False, low)


def sql_graph(title, sql, help, unit="short", stacked=True, bars=True):
    """Series over time from rows of (time, metric, value)."""
    return _graph(title, help, POSTGRESQL, _sql_target(sql, "time_series"), unit, None, stacked, bars, 0)


def _table(title, help, datasource, targets, columns, height, **more):
    overrides = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": what, "value": value} for what, value in properties.items()],
        }
        for name, properties in (columns or {}).items()
    ]
    return _panel(
        "table",
        height,
        title,
        help,
        datasource,
        targets,
        {"showHeader": True, "cellHeight": "sm", "frameIndex": 0},
        _field(
            "short",
            PLAIN,
            custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False, "filterable": False},
        ),
        overrides,
        **more,
    )


def sql_table(title, sql, help, columns=None, height=TABLE_HEIGHT):
    """The rows of a query. `columns` are properties of single columns, such as {"size": {"unit": "bytes"}}."""
    return _table(title, help, POSTGRESQL, _sql_target(sql, "table"), columns, height)


def table(title, query, help, columns=None, hide=(), rename=None, height=TABLE_HEIGHT):
    """The series of a query as rows: their labels, and their value in the column `Value`."""
    targets = _metric_targets([("", query)], True)
    targets[0]["format"] = "table"
    organize = {
        "id": "organize",
        "options": {
            "excludeByName": {name: True for name in ("Time", "__name__", "job", *hide)},
            "renameByName": rename or {},
        },
    }
    return _table(title, help, PROMETHEUS, targets, columns, height, transformations=[organize])


def _variable(name, label, help, many, **more):
    everything = {"text": ["All"], "value": ["$__all"]} if many else {"text": "", "value": ""}
    return {
        "name": name,
        "label": label,
        "description": help,
        "multi": many,
        "includeAll": many,
        "current": everything,
        "hide": 0,
        **more,
    }


def instance_variable():
    """The processes of Quipu."""
    help = (
        "The processes whose own metrics are shown. What the service `observer` reads from the database is"
        " shown always."
    )
    query = {"qryType": 1, "query": "label_values(quipu_build_info,instance)", "refId": "Instances"}
    more = {"type": "query", "datasource": PROMETHEUS, "query": query, "refresh": 2, "sort": 1}
    return _variable("instance", "process", help, True, **more)


def network_variable():
    """The networks of relays."""
    networks = ("clearnet", "tor", "i2p", "loki")
    options = [{"text": network, "value": network, "selected": False} for network in networks]
    more = {"type": "custom", "query": ",".join(networks), "options": options}
    return _variable("network", "network", "The networks of the relays.", True, **more)


def sql_variable(name, label, sql, help):
    """One value of a query's only column."""
    more = {"type": "query", "datasource": POSTGRESQL, "query": sql, "refresh": 1, "sort": 0}
    return _variable(name, label, help, False, **more)


def dashboard(uid, title, help, variables, rows, since="now-24h"):
    """A dashboard. `rows` are lists of panels; a string before them is the heading of those that follow."""
    panels, y = [], 0
    for row in rows:
        if isinstance(row, str):
            heading = {"type": "row", "title": row, "collapsed": False, "panels": []}
            panels.append({**heading, "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y}})
            y += 1
            continue
        height = max(panel["gridPos"]["h"] for panel in row)
        for place, panel in enumerate(row):
            left, right = (COLUMNS * side // len(row) for side in (place, place + 1))
            panels.append({**panel, "gridPos": {"h": height, "w": right - left, "x": left, "y": y}})
        y += height
    links = {
        "type": "dashboards",
        "title": "Quipu",
        "tags": ["quipu"],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
    return {
        "uid": uid,
        "title": title,
        "description": help,
        "tags": ["quipu"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": since, "to": "now"},
        "refresh": "30s",
        "links": [links],
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }
