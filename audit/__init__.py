"""The tamper-evident log: events, Merkle tree, checkpoints, receipts, and the `auditor` that need not trust us.

Pure but for two things, each in one module: `checkpoint.Signer` keeps a state file, and `cli` reads folders and the
clock.  Nothing here knows SQL or HTTP; `broker.trail` stores what `sequencer.advance` returns.
"""
