module mtserver-benchmarks

go 1.19
