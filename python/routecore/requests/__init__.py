"""What a request is: one reading for strategies, hosts, KV events, replay and shadow alike.

`body.py` finds the body, and names what of it is part of the prompt; the compiled core turns it
into blocks. `conversation.py` and `templates.py` render it as the engine does; `headers.py` reads
sessions, `usage.py` what answers tell of tokens.
"""

from routecore.requests.body import body_of, has_prompt, prompt_fields
from routecore.requests.headers import header
from routecore.requests.usage import Usage, usage_in, usage_of

__all__ = ["Usage", "body_of", "has_prompt", "header", "prompt_fields", "usage_in", "usage_of"]
