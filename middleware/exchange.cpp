// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <charconv>
#include <memory_resource>

#include <spillway/encoders/json.hpp>
#include <spillway/engine/exception.hpp>
#include <spillway/middleware/exchange.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {
namespace {

constexpr std::size_t problem_detail_bytes_max = 512;
constexpr std::size_t problem_id_bytes_max = 128;

std::string_view find_in_list(const void* message, std::string_view name, std::size_t nth) {
  const auto& list = *static_cast<const std::span<const HeaderField>*>(message);
  for (const HeaderField& field : list) {
    if (transport::equal_without_case(field.name, name) && nth-- == 0)
      return field.value.data() != nullptr ? field.value : std::string_view("");
  }
  return {};
}

bool is_control(char c) noexcept {
  return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7F;
}

// Whether one of eight bytes is below 0x20 or is 0x7F: a tab is too, which the caller looks at again.
bool may_have_control(const char* eight) noexcept {
  constexpr std::uint64_t ones = 0x0101010101010101;
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, eight, sizeof bytes);
  const std::uint64_t deletes = bytes ^ 0x7F * ones;  // A byte that is 0x7F becomes 0.
  const std::uint64_t below_space = (bytes - 0x20 * ones) & ~bytes;
  const std::uint64_t is_delete = (deletes - ones) & ~deletes;
  return ((below_space | is_delete) & 0x80 * ones) != 0;
}

bool has_control(std::string_view text) noexcept {
  constexpr std::size_t word = 8;
  if (text.size() >= word) {
    const char* const last = text.data() + text.size() - word;
    bool may = may_have_control(last);
    for (const char* at = text.data(); at < last; at += word) may |= may_have_control(at);
    if (!may) return false;
  }
  return std::any_of(text.begin(), text.end(), is_control);
}

}  // namespace

Headers headers_of(const std::span<const HeaderField>& list) noexcept {
  return {&list, find_in_list};
}

void RequestView::target(std::string_view text) noexcept {
  bool absolute = false;
  if (const auto scheme_end = text.find("://");
      !text.starts_with('/') && scheme_end != std::string_view::npos) {
    absolute = true;
    text.remove_prefix(std::min(text.find_first_of("/?#", scheme_end + 3), text.size()));
  }
  text = text.substr(0, text.find('#'));
  const auto question = text.find('?');
  path = text.substr(0, question);
  if (absolute && path.empty()) path = "/";
  query = question == std::string_view::npos ? std::string_view{} : text.substr(question + 1);
}

bool Exchange::add_header(std::string_view name, std::string_view value) noexcept {
  if (header_count_ == headers_.size() || has_control(value)) return false;
  const auto copy = keep(value);
  if (!copy) return false;
  std::construct_at(&headers_[header_count_++], HeaderField{name, *copy});
  return true;
}

void Exchange::add_retry_after(std::chrono::nanoseconds wait) noexcept {
  const auto seconds =
      std::max<std::int64_t>(std::chrono::ceil<std::chrono::seconds>(wait).count(), 1);
  std::array<char, 20> digits;
  char* const end = std::to_chars(digits.data(), digits.data() + digits.size(), seconds).ptr;
  add_header("Retry-After", {digits.data(), static_cast<std::size_t>(end - digits.data())});
}

Verdict Exchange::refuse(int status, std::string_view detail, std::string_view why) noexcept {
  if (!why.empty()) decision = why;
  // Escaped, a byte becomes six at most, so that the document fits into the buffer's first step.
  std::array<std::byte, 8192> memory;
  std::pmr::monotonic_buffer_resource resource(memory.data(), memory.size(),
                                               std::pmr::null_memory_resource());
  constexpr std::string_view type = "application/problem+json";
  try {
    detail::ByteBuffer out(&resource);
    const auto write = [&](std::string_view text) {
      out.clear();
      out.append(R"({"type":"about:blank","title":)");
      detail::append_json_string(out, status_title(status));
      out.append(R"(,"status":)");
      detail::append_number(out, static_cast<std::int64_t>(status));
      if (!text.empty()) {
        out.append(R"(,"detail":)");
        detail::append_json_string(out, detail::cut_utf8(text, problem_detail_bytes_max));
      }
      if (!request_id.empty() && request_id.size() <= problem_id_bytes_max) {
        out.append(R"(,"request_id":)");
        detail::append_json_string(out, request_id);
      }
      out.append("}");
      return keep(out.view());
    };
    auto body = write(detail);
    if (!body) body = write({});
    return reply(status, body ? type : std::string_view{}, body.value_or(std::string_view{}));
  } catch (...) {  // No memory is asked of anyone: not reached.
    return reply(status, {}, {});
  }
}

void Exchange::fail(const std::exception_ptr& exception) noexcept {
  const auto take = [&] {
    const ExceptionInfo info(exception, false);
    const std::string_view type =
        info.depth() > 0 && !info.type(0).empty() ? info.type(0) : "unknown";
    exception_.type = keep(type.substr(0, exception_message_bytes_max)).value_or("unknown");
    if (info.depth() == 0) return;
    exception_.message = keep(detail::cut_utf8(info.message(0), exception_message_bytes_max))
                             .value_or(std::string_view{});
  };
  try {
    if (exception) std::rethrow_exception(exception);
  } catch (const HttpError& error) {
    if (error.status() >= 500) take();
    refuse(error.status(), error.what());
    return;
  } catch (...) {
  }
  take();
  refuse(500);
}

std::string_view status_title(int status) noexcept {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 421:
      return "Misdirected Request";
    case 422:
      return "Unprocessable Content";
    case 425:
      return "Too Early";
    case 428:
      return "Precondition Required";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case status_client_closed_request:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 507:
      return "Insufficient Storage";
    case 511:
      return "Network Authentication Required";
    default:
      return "Unknown";
  }
}

}  // namespace spillway::middleware
