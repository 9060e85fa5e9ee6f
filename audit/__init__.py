"""The tamper-evident log: events, Merkle tree, checkpoints, receipts, and the `auditor` that need not trust us.

Pure but for three things: `signer.Signer` keeps a state file, `verify.LogFolder` reads a folder, and `cli` reads
files and the clock.  Nothing here knows SQL or HTTP; `broker.trail` stores what `sequencer.advance` returns.
"""
