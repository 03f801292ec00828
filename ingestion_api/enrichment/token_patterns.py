"""What tokens look like: shapes that their issuers publish; compare the rules of gitleaks, which has many more."""

import re2

_SHAPES = (
    r"gh[pousr]_[A-Za-z0-9]{36,255}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{22,255}",
    r"gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_\-]{20,}",  # GitLab
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",  # AWS
    r"xox[abeoprs]-[A-Za-z0-9\-]{10,}",  # Slack
    r"xapp-[0-9]-[A-Za-z0-9\-]{10,}",
    r"hooks\.slack\.com/services/[A-Za-z0-9/]{20,}",
    r"AIza[A-Za-z0-9_\-]{35}",  # Google
    r"ya29\.[A-Za-z0-9_\-]{20,}",
    r"GOCSPX-[A-Za-z0-9_\-]{20,}",
    r"(?:sk|rk|pk)_(?:live|test|prod)_[A-Za-z0-9]{10,}",  # Stripe
    r"whsec_[A-Za-z0-9+/=]{20,}",
    r"sk-(?:(?:ant|proj|svcacct)-[A-Za-z0-9_\-]{20,}|[A-Za-z0-9]{32,})",  # Anthropic, OpenAI
    r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_\-]{50,}",
    r"SG\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}",  # SendGrid
    r"dop_v1_[a-f0-9]{64}",  # DigitalOcean
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",  # Shopify
    r"(?:AC|SK)[a-f0-9]{32}",  # Twilio
    r"[0-9]{8,10}:AA[A-Za-z0-9_\-]{33}",  # Telegram
    r"ap_[A-Za-z0-9_\-]{43}",  # our own API keys
    r"eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*",  # JSON Web Tokens
)
_PRIVATE_KEY = (
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----\s*(?:[A-Za-z0-9+/=]{16,}\s*)*[A-Za-z0-9+/=]{0,76}\s*"
    r"(?:-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----)?"
)

# A shape begins a word: "task-force-…" holds "sk-", but is none.
TOKENS = re2.compile(rf"\b(?:{'|'.join(_SHAPES)})|{_PRIVATE_KEY}")

# The password of scheme://user:password@host
CREDENTIALS = re2.compile(r"://[^\s/:@]*:([^\s/@\[\]]+)@")

# The value of key=value, key: value, "key": "value", Bearer value; whoever uses it looks for digits and letters.
ASSIGNED = re2.compile(
    r"(?i)(?:\b(?:[a-z0-9]+[_-])*(?:api[_-]?key|access[_-]?key|secret|token|passw(?:or)?d|pwd)[\"']?\s{0,3}[:=]\s{0,3}"
    r"[\"']?|\bbearer\s{1,3})([a-z0-9_\-.+/=~]{16,})"
)
