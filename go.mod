module github.com/seed-a18b2dc9/workpool

go 1.25.0
