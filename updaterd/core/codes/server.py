# SPDX-License-Identifier: Apache-2.0
"""Codes of the feed server: its answers and its own trouble."""

ROWS = """
address_file: the file for the server's address cannot be written
  | correct `--address-file`
certificate: the certificate or its key cannot be used | correct the files
workers_reports: several workers cannot share the embedded store of reports, or
  the console
  | PostgreSQL, or `--only reports`
listen: the server cannot listen at this address
  | choose another port, or see who has it
log_unreachable: the event log does not answer | see Redis, PostgreSQL, NATS or the disk
log_unusable: the event log cannot be used | see the file that is named
log_url: the address of the log is not valid | correct `--log`
extra_missing: the server's libraries are not installed | install `updaterd[server]`
tokens_unreadable: the tokens cannot be read | correct the file's rights
tokens_unwritable: the tokens cannot be written
  | correct the folder's rights, or free space
downloads_full: the feed server reads as many files as it can open, or one address
  reads more than its share | try again later
unavailable: the feed server cannot answer now: files or connections are at their
  limit, or its disk refuses | read its log
too_many_tokens: there are too many tokens | revoke some
bad_scope: a scope is not valid | see `token create --help`
reports_unusable: the store of reports cannot be used | see what is named
reports_down: the store of reports does not answer; machines keep their reports
  | look at PostgreSQL, or the disk
reports_full: more reports wait to be kept than the server holds
  | nothing: machines come again
too_many_reports: reports come too fast from one address or token | slow down
reports_url: the address of the store of reports is not valid
  | correct `--reports-store`
no_reports: nobody has reported about this | wait, or correct the address
bad_query: a value in the address's query cannot be used | correct it
bad_code_terms: enrolment codes cannot be made so: too many, or for too long
  | make fewer, or for fewer days
code_unknown: nobody gave out this enrolment code here, or it was revoked
  | compare it; ask the server's operator for a new one
code_expired: the enrolment code has expired | ask the server's operator for a new one
code_used: another machine has used the enrolment code
  | ask for a new one; if you used it nowhere else, tell the operator: it was stolen
code_elsewhere: the enrolment code is for a product that the machine does not have
  | use it where the product is: it still counts
token_taken: the token that a machine made is in use at the server already
  | `updaterd enroll --forget`, then enrol again
too_many_tries: wrong enrolment codes come too fast, from one address or from all
  | wait, and compare the code
no_such_token: there is no such token | `updaterd token list`
bad_grant: what a grant takes is not valid | see `updaterd token create --help`
identity_refused: the identity token does not count, or no grant takes it
  | compare the grant with the job; get a new token
issuer_unreachable: the keys of an identity token's issuer cannot be had now
  | try again; see to the way to the issuer
token_required: a token is needed | send one
scope_missing: the token may not do that | use another token
idempotency_key_required: an announcement came without its key | send `Idempotency-Key`
idempotency_key_reused: the key came with another announcement before | use a new key
metadata_older: the announcement's metadata is older than what was announced
  | announce what is newest
too_many_announcements: announcements come too fast | slow down
body_timeout: the body did not come in time | send it at once
head_too_large: the headers of the request are too large | send fewer
method_not_allowed: the method is not allowed here | use one that `Allow` names
not_acceptable: the client accepts none of what is served here
  | accept `text/event-stream`, or send no `Accept`
not_found: nothing is served at this address | correct the address
range_not_satisfiable: the file has no such part | ask for a part within its length
bad_request: the request is not HTTP/1.1 as its standard has it
  | send one that is (RFC 9112)
unexpected: the feed server made a mistake | see its log, and report it
http_version: the request's version of HTTP is not served | use HTTP/1.1
target: the request's target is not valid
  | ask for a path, escaped and without a fragment
host: the request's Host header is missing, or there are several | send one
framing: where the request's body ends is not clear
  | send Content-Length or Transfer-Encoding
transfer_encoding: the body has a coding that is not served | send it chunked
protocol_upgrade: the request asks for another protocol | leave `Upgrade` out
not_ready: the feed server is starting or stopping | ask again
full: the server has as many streams as it may | ask again later; add servers
too_many_at_once: too many streams open at once | ask again later
operate_scope_required: metrics need a token with the scope `operate`
  | use another token
too_many_of_token: there are too many streams with one token
  | open fewer, or use another token
too_many_of_address: there are too many streams from one address | open fewer
"""
