"""Close codes of RFC 6455 section 7.4, those that we say or read by name. Pure."""

NORMAL, GOING_AWAY, PROTOCOL_ERROR = 1000, 1001, 1002
NO_STATUS, ABNORMAL = 1005, 1006  # never sent: a close frame without a code, none at all
INVALID_DATA, POLICY_VIOLATION, TOO_BIG = 1007, 1008, 1009

# What a peer may say, by the section and the registry that it opened.
SENDABLE = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))
