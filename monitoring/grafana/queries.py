"""Parts of queries that several panels use.

Some metrics come from every process and are summed over `$instance`. Those that the service `observer` reads from the
database come from one process at a time: a sum or maximum over all instances is right, and `$instance` does not apply.
"""

INSTANCE = 'instance=~"$instance"'
NETWORK = 'network=~"$network"'
EVERYWHERE = ""


def or_zero(query):
    """The query, or 0 while it has no series: a counter with labels appears when it first counts."""
    return f"({query}) or on() vector(0)"


def rate(counter, by="", where=INSTANCE):
    """Counts a second, summed by some labels."""
    grouped = f"sum by ({by})" if by else "sum"
    return or_zero(f"{grouped} (rate({counter}{{{where}}}[$__rate_interval]))")


def total(gauge, by="", where=INSTANCE):
    """The sum of a gauge by some labels."""
    grouped = f"sum by ({by})" if by else "sum"
    return or_zero(f"{grouped} ({gauge}{{{where}}})")


def quantile(share, histogram, by="", where=INSTANCE, window="$__rate_interval"):
    """The value below which a share of what a histogram counted lies; 0 while it counted nothing."""
    grouped = f"le, {by}" if by else "le"
    query = f"histogram_quantile({share}, sum by ({grouped}) (rate({histogram}_bucket{{{where}}}[{window}])))"
    # Without observations the quantile is NaN, which compares as false.
    return or_zero(f"{query} >= 0")


# Days until the reserve of the disk is reached at the speed of the last day; at most ten years, and ten years until one
# hour has been observed, because a start fills the disk much faster. No series where Quipu cannot measure the free space,
# which is then 0.
DISK_FULL_DAYS = (
    "min(clamp_min(clamp_max((quipu_store_space_free_bytes - quipu_store_space_reserve_bytes)"
    " / clamp_min((-deriv(quipu_store_space_free_bytes[1d]) and quipu_store_space_free_bytes offset 1h)"
    " or quipu_store_space_free_bytes * 0, 1) / 86400, 3650), 0)"
    " and quipu_store_space_free_bytes > 0)"
)
