"""Taking mail in: listeners, the SMTP session, the access rules and their explanation.

Others use `Intake` (bind, limit, drain), `AccessRules` with `decide` and `question_from_text` (the relay decision, also
rehearsed by `access test`), and `ListenError`. A message leaves this room through `Queue.accept`, and the client is
told 250 only when that is done.
"""
