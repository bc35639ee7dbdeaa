// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/middleware/cors.hpp>
#include <spillway/middleware/resilience/settings.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {
namespace {

bool is_any(const std::vector<std::string>& list) { return list.size() == 1 && list[0] == "*"; }

std::string joined(const std::vector<std::string>& list) {
  std::string text;
  for (const std::string& one : list) text.append(text.empty() ? "" : ", ").append(one);
  return text;
}

// RFC 9110, 5.6.2.
bool is_token(std::string_view text) noexcept {
  constexpr std::string_view marks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           marks.find(c) != marks.npos;
  });
}

// "https://shop.example:8443", perhaps with "*." in front of the host.
bool is_origin_pattern(std::string_view text) noexcept {
  if (text == "null") return true;
  const auto scheme_end = text.find("://");
  if (scheme_end == text.npos || scheme_end == 0) return false;
  std::string_view host = text.substr(scheme_end + 3);
  if (host.starts_with("*.")) host.remove_prefix(2);
  return !host.empty() &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return c > ' ' && c < 0x7F && !(c >= 'A' && c <= 'Z'); }) &&
         host.find_first_of("/?#*@,\\") == host.npos && !host.ends_with(':');
}

// What a "*." stands for: labels of a host, nothing else.
bool is_labels(std::string_view text) noexcept {
  return !text.empty() && text.front() != '.' && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '.' || c == '_';
  });
}

bool fits(std::string_view pattern, std::string_view origin) noexcept {
  const auto star = pattern.find("://*.");
  if (star == pattern.npos) return pattern == origin;
  const std::string_view front = pattern.substr(0, star + 3);
  const std::string_view back = pattern.substr(star + 4);  // ".shop.example"
  return origin.size() > front.size() + back.size() && origin.starts_with(front) &&
         origin.ends_with(back) &&
         is_labels(origin.substr(front.size(), origin.size() - front.size() - back.size()));
}

}  // namespace

Cors::Cors(const CorsOptions& options)
    : options_(options),
      any_origin_(is_any(options.origins)),
      any_method_(is_any(options.methods)),
      any_header_(is_any(options.headers)),
      methods_(joined(options.methods)),
      headers_(joined(options.headers)),
      expose_(joined(options.expose)),
      max_age_(std::to_string(options.max_age.count())) {
  SettingsCheck check("cors");
  check.require(!options.origins.empty(), "origins is empty: no page could ever read an answer");
  for (const std::string& origin : options.origins) {
    check.require(
        any_origin_ || is_origin_pattern(origin),
        "origins: \"" + origin +
            "\" is no origin such as \"https://shop.example\" in lower case without a path");
  }
  const auto tokens = [&](std::string_view name, const std::vector<std::string>& list, bool any) {
    for (const std::string& one : list) {
      check.require(any || (is_token(one) && one != "*"),
                    std::string(name) + ": \"" + one + "\" is no name");
    }
  };
  tokens("methods", options.methods, any_method_);
  tokens("headers", options.headers, any_header_);
  tokens("expose", options.expose, is_any(options.expose));
  check.require(!options.credentials ||
                    !(any_origin_ || any_method_ || any_header_ || is_any(options.expose)),
                "credentials: browsers take no \"*\" together with credentials");
  check.within("max_age (s)", options.max_age.count(), decltype(options.max_age.count()){0},
               decltype(options.max_age.count()){86'400});
  check.done();
}

bool Cors::allows_origin(std::string_view origin) const noexcept {
  return any_origin_ ||
         std::any_of(options_.origins.begin(), options_.origins.end(),
                     [&](const std::string& pattern) { return fits(pattern, origin); });
}

bool Cors::allows_headers(std::string_view list) const noexcept {
  if (any_header_) return true;
  while (!list.empty()) {
    const auto comma = std::min(list.find(','), list.size());
    const std::string_view name = transport::trim(list.substr(0, comma));
    if (!name.empty() &&
        std::none_of(options_.headers.begin(), options_.headers.end(), [&](const std::string& one) {
          return transport::equal_without_case(one, name);
        }))
      return false;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return true;
}

void Cors::add_origin(Exchange& exchange, std::string_view origin) const noexcept {
  exchange.add_header("Access-Control-Allow-Origin", any_origin_ ? "*" : origin);
  if (options_.credentials) exchange.add_header("Access-Control-Allow-Credentials", "true");
}

Verdict Cors::before(State& /*state*/, Exchange& exchange) const noexcept {
  const std::string_view origin = exchange.request.header("Origin");
  const std::string_view method = exchange.request.header("Access-Control-Request-Method");
  if (exchange.request.method == "OPTIONS" && !origin.empty() && !method.empty())
    return preflight(exchange, origin, method);
  // Also without an Origin: a cache must not give a page what was answered to somebody else.
  if (!any_origin_) exchange.add_header("Vary", "Origin");
  if (!origin.empty() && allows_origin(origin)) {
    add_origin(exchange, origin);
    if (!expose_.empty()) exchange.add_header("Access-Control-Expose-Headers", expose_);
  }
  return Verdict::proceed;
}

Verdict Cors::preflight(Exchange& exchange, std::string_view origin,
                        std::string_view method) const noexcept {
  exchange.add_header("Vary",
                      "Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
  if (!allows_origin(origin))
    return exchange.refuse(403, "this origin is not allowed", "cors: origin");
  // Fetch, "CORS-safelisted method": these need no leave.
  const bool safe = method == "GET" || method == "HEAD" || method == "POST";
  if (!safe && !any_method_ &&
      std::find(options_.methods.begin(), options_.methods.end(), method) == options_.methods.end())
    return exchange.refuse(403, "this method is not allowed from other origins", "cors: method");
  const std::string_view asked = exchange.request.header("Access-Control-Request-Headers");
  if (!allows_headers(asked)) {
    return exchange.refuse(403, "one of these headers is not allowed from other origins",
                           "cors: headers");
  }
  add_origin(exchange, origin);
  if (!methods_.empty()) exchange.add_header("Access-Control-Allow-Methods", methods_);
  if (!headers_.empty()) exchange.add_header("Access-Control-Allow-Headers", headers_);
  exchange.add_header("Access-Control-Max-Age", max_age_);
  return exchange.reply(204, {}, {});
}

}  // namespace spillway::middleware
