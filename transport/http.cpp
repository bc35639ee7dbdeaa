// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/transport/http.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::transport {

std::string_view find_header(const std::vector<HttpHeader>& headers,
                             std::string_view name) noexcept {
  const auto found = std::find_if(headers.begin(), headers.end(), [&](const HttpHeader& header) {
    return equal_without_case(header.name, name);
  });
  return found == headers.end() ? std::string_view{} : std::string_view{found->value};
}

}  // namespace spillway::transport
