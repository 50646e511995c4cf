//! What the operator wants: proxy.yaml, raw and checked.
