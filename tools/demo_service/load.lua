-- What wrk sends to the demo: five tenants, reads and orders mixed, some for orders that are not there.
local tenants = { "acme", "globex", "initech", "umbrella", "hooli" }
local n = 0

request = function()
  n = n + 1
  wrk.headers["X-Tenant-ID"] = tenants[n % #tenants + 1]
  wrk.headers["X-User-ID"] = "u-" .. n % 97
  if n % 4 == 0 then return wrk.format("POST", "/orders", nil, "{}") end
  return wrk.format("GET", "/orders/" .. n % 5000 + 1)
end
