"""What a run shows over HTTP: `/metrics` for Prometheus, `/healthz` and `/readyz` for supervisors.

    settings    where it is served
    look        what there is to show, taken on the event loop: records and numbers, no work
    health      from a look: alive? ready? what is wrong?
    prometheus  from a look: metrics as text
    app         the routes, and who may read them
    server      `WebServer`: a sink, so that the runtime starts and ends it and it sees each message

It runs on the event loop and takes a look there; all that computes happens beside the loop.
"""
