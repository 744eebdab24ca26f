"""Example handlers; run them with: dispatcher worker examples.handlers:jobs"""
