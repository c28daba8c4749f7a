"""Every error that mmstream raises on purpose.

    MmstreamError
      + ConfigError         a key, value, file or flag in the configuration is wrong
      + SourceError         a file, URL or device cannot be opened or read
      + FeatureError        samples or pixels do not fit what a feature was set up for
      + ScorerError         a detector or model cannot be built or run
      + SinkError           a message could not be delivered and is lost
        - BrokerError       the MQTT broker cannot be reached or refused us
      + StoreError          the event log on disk cannot be opened, read or written
        - DiskFullError     there is no room: nothing was written, the same may work later
        - StoreCorruptError what the file holds makes no sense; opened again, it is set aside
      + CommandError        a request cannot be understood or carried out
      + UnreachableError    with --strict, a source or broker was not reached at the start
      + StateError          a call out of order: pushed after flush, run twice

Each message names the offending thing and what is allowed. None holds a credential: URLs go
through `mask_credentials` first.
"""

import re

# Greedy: people put unescaped `@` and `/` into passwords, and too much masked is no leak.
_USERINFO = re.compile(r"(?<=://)\S*@")
# All values of a query, whatever they are called; outside of one those with a telling name.
_PARAMETER = re.compile(
    r"((?:[?&][^=&\s]+|password|passwd|pwd|pass|token|secret|api_?key)=)[^&\s'\"]*", re.IGNORECASE
)


class MmstreamError(Exception):
    """Base of all of them; the command line prints it as one line and no traceback."""


class ConfigError(MmstreamError):
    """The configuration is wrong; the text says file:line:column, the key and what is allowed."""


class SourceError(MmstreamError):
    """A source cannot be opened or read; the text names it, without credentials."""


class FeatureError(MmstreamError):
    """Samples or pixels do not fit the settings of the feature that got them."""


class ScorerError(MmstreamError):
    """A detector or model cannot be built or run; the text names it."""


class SinkError(MmstreamError):
    """A message could not be delivered: it is lost unless the caller keeps it."""


class BrokerError(SinkError):
    """The MQTT broker cannot be reached, or refused the connection; the text says why."""


class StoreError(MmstreamError):
    """The event log cannot be opened, read or written; the text names the file and what to do."""


class DiskFullError(StoreError):
    """No room: nothing of what was asked was written; the store goes on once there is some."""


class StoreCorruptError(StoreError):
    """The file is damaged: close the store and open it again, then it is set aside."""


class CommandError(MmstreamError):
    """A request cannot be understood or carried out; the text, which goes back, says why."""


class UnreachableError(MmstreamError):
    """With `--strict`: a source or broker could not be reached at the start; the text says why."""


class StateError(MmstreamError):
    """A call came out of order; a mistake in the calling code."""


def mask_credentials(text: str) -> str:
    """`text` with `***` for the user information of URLs and for `password=...` and its like."""
    return _PARAMETER.sub(r"\1***", _USERINFO.sub("***@", text))
