"""Write numbers and times as text."""

import datetime
import math

NONE = "\N{EM DASH}"


def percent(share: float) -> str:
    """Write a share of 1: 97.33 %."""
    return f"{100 * share:.2f}\N{NO-BREAK SPACE}%"


def number(value: float) -> str:
    """Write a number to four significant digits."""
    return f"{value:.4g}"


def rate(value: float) -> str:
    """Write images per second."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """Write a time in the two units that matter: 2 h 03 min."""
    if not math.isfinite(seconds) or seconds < 0:
        return NONE
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return f"{days} d {hours:02d} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def moment(value) -> str:
    """Write a time, seconds since 1970 or ISO 8601, as UTC; anything else as it is."""
    utc = datetime.timezone.utc
    try:
        if isinstance(value, (int, float)):
            when = datetime.datetime.fromtimestamp(value, utc)
        else:
            when = datetime.datetime.fromisoformat(str(value)).astimezone(utc)
    except (ValueError, OverflowError, OSError):
        return NONE if value is None else str(value)
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")
