module gpu-gate.dev/test/ec-secrets

go 1.24
