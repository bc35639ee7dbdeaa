// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include <curl/curl.h>

#include <spillway/transport/curl_transport.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::transport {
namespace {

struct EasyDeleter {
  void operator()(CURL* easy) const noexcept { curl_easy_cleanup(easy); }
};
struct ListDeleter {
  void operator()(curl_slist* list) const noexcept { curl_slist_free_all(list); }
};
using Easy = std::unique_ptr<CURL, EasyDeleter>;
using HeaderList = std::unique_ptr<curl_slist, ListDeleter>;

constexpr std::size_t idle_handles_max = 8;

void initialise_once() {
  static const CURLcode result = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (result != CURLE_OK)
    throw std::runtime_error("libcurl does not start: " + std::string(curl_easy_strerror(result)));
}

bool has_line_break(std::string_view text) {
  return text.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos;
}

// A header with a line break would be two: libcurl sends what it is given.
bool is_clean(const HttpRequest& request) {
  return !has_line_break(request.origin) && !has_line_break(request.address) &&
         !has_line_break(request.path) && !has_line_break(request.query) &&
         !has_line_break(request.method) &&
         std::none_of(request.headers.begin(), request.headers.end(), [](const HttpHeader& header) {
           return header.name.empty() || has_line_break(header.name) ||
                  has_line_break(header.value);
         });
}

// `sent`: a part of the body was, on this connection or on one that broke. `no_memory`: for the
// answer.
HttpOutcome outcome_of(CURLcode code, CURL* easy, bool sent, bool no_memory) {
  if (code == CURLE_OK) return HttpOutcome::answered;
  if (no_memory) return HttpOutcome::lost;
  if (code == CURLE_WRITE_ERROR) return HttpOutcome::too_large;
  // Once the connection stood, the request may have been read, whatever went wrong then.
  curl_off_t connected_us = 0;
  curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &connected_us);
  if (connected_us > 0 || sent) return HttpOutcome::lost;
  const bool impossible = code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL;
  return impossible ? HttpOutcome::refused_locally : HttpOutcome::not_connected;
}

// What OpenSSL says of a handshake that failed often does not say that it was one.
std::string_view subject_of(CURLcode code) {
  switch (code) {
    case CURLE_SSL_CACERT_BADFILE:
      return "trusted authorities (AWS_CA_BUNDLE, or the system's): ";
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
      return "TLS: ";
    default:
      return "";
  }
}

}  // namespace

struct CurlTransport::Exchange {
  std::uint64_t id = 0;
  HttpRequest request;
  HttpResponse response;
  HeaderList headers;
  HeaderList connect_to;
  Easy easy;
  std::size_t sent = 0;  // of the body
  std::size_t header_bytes = 0;
  bool headers_ended = false;
  bool no_memory = false;  // for the answer
  char error[CURL_ERROR_SIZE] = {};

  // The body goes through callbacks that refuse to begin again: with a body at hand, libcurl would
  // send a request a second time by itself when a kept connection breaks before its answer.
  static std::size_t give_body(char* to, std::size_t size, std::size_t count, void* self) {
    auto& exchange = *static_cast<Exchange*>(self);
    const std::size_t bytes = std::min(size * count, exchange.request.body.size() - exchange.sent);
    if (bytes != 0) std::memcpy(to, exchange.request.body.data() + exchange.sent, bytes);
    exchange.sent += bytes;
    return bytes;
  }
  static int rewind_body(void* /*self*/, curl_off_t /*offset*/, int /*origin*/) {
    return CURL_SEEKFUNC_FAIL;
  }

  // Nothing may be thrown through libcurl's frames: it would take itself to be inside of a callback
  // from then on, and refuse every call.
  static std::size_t take_body(char* data, std::size_t size, std::size_t count,
                               void* self) noexcept {
    auto& exchange = *static_cast<Exchange*>(self);
    const std::size_t bytes = size * count;
    if (exchange.response.body.size() + bytes > response_bytes_max) return 0;
    try {
      exchange.response.body.append(data, bytes);
    } catch (...) {
      exchange.no_memory = true;
      return 0;
    }
    return bytes;
  }

  static std::size_t take_header(char* data, std::size_t size, std::size_t count,
                                 void* self) noexcept try {
    auto& exchange = *static_cast<Exchange*>(self);
    const std::size_t bytes = size * count;
    exchange.header_bytes += bytes;
    if (exchange.header_bytes > response_header_bytes_max) return 0;
    const std::string_view line(data, bytes);
    if (line.starts_with("HTTP/")) {
      exchange.response.headers.clear();  // A 100 Continue, or a proxy's answer, went before.
      exchange.headers_ended = false;
    } else if (trim(line).empty()) {
      exchange.headers_ended = true;
    } else if (const std::size_t colon = line.find(':'); colon != std::string_view::npos) {
      exchange.response.headers.push_back(
          {std::string(trim(line.substr(0, colon))), std::string(trim(line.substr(colon + 1)))});
    }
    return bytes;
  } catch (...) {
    static_cast<Exchange*>(self)->no_memory = true;
    return 0;
  }

  /// The first thing that libcurl does not take.
  CURLcode prepare(std::chrono::milliseconds timeout) {
    CURL* const handle = easy.get();
    std::string url = request.origin + request.path;
    if (!request.query.empty()) url.append("?").append(request.query);
    CURLcode result = CURLE_OK;
    const auto set = [&](CURLoption option, auto value) {
      if (result == CURLE_OK) result = curl_easy_setopt(handle, option, value);
    };
    // What a libcurl that is older, or was built without it, can do without.
    const auto prefer = [&](CURLoption option, auto value) {
      static_cast<void>(curl_easy_setopt(handle, option, value));
    };
    for (const HttpHeader& header : request.headers) {
      // An empty value would make libcurl leave the header out; a semicolon says that it is meant.
      append(headers, header.name + (header.value.empty() ? ";" : ": " + header.value));
    }
    append(headers, "Expect:");
    set(CURLOPT_URL, url.c_str());
    set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
    set(CURLOPT_HTTPHEADER, headers.get());
    if (request.method == "GET") {
      set(CURLOPT_HTTPGET, 1L);
    } else {
      set(CURLOPT_POST, 1L);
      set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
      set(CURLOPT_READFUNCTION, &Exchange::give_body);
      set(CURLOPT_READDATA, this);
      set(CURLOPT_SEEKFUNCTION, &Exchange::rewind_body);
    }
    set(CURLOPT_PATH_AS_IS, 1L);
    set(CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_FOLLOWLOCATION, 0L);
    set(CURLOPT_NOSIGNAL, 1L);
    prefer(CURLOPT_QUICK_EXIT, 1L);
    set(CURLOPT_TIMEOUT_MS,
        static_cast<long>(std::max(timeout.count(), std::int64_t{1})));  // 0: none
    prefer(CURLOPT_TCP_KEEPALIVE, 1L);
    set(CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
    if (!request.address.empty()) {
      const bool is_v6 = request.address.find(':') != std::string::npos;
      const std::string host = is_v6 ? "[" + request.address + "]" : request.address;
      append(connect_to, "::" + host + ":");
      set(CURLOPT_CONNECT_TO, connect_to.get());
      prefer(CURLOPT_NOPROXY, "*");
    }
    if (const char* const bundle = std::getenv("AWS_CA_BUNDLE");
        bundle != nullptr && *bundle != '\0') {
      set(CURLOPT_CAINFO, bundle);
      // In place of the system's authorities, not beside them.
      prefer(CURLOPT_CAPATH, static_cast<const char*>(nullptr));
    }
    set(CURLOPT_WRITEFUNCTION, &Exchange::take_body);
    set(CURLOPT_WRITEDATA, this);
    set(CURLOPT_HEADERFUNCTION, &Exchange::take_header);
    set(CURLOPT_HEADERDATA, this);
    set(CURLOPT_ERRORBUFFER, error);
    set(CURLOPT_PRIVATE, this);
    return result;
  }

 private:
  static void append(HeaderList& list, const std::string& line) {
    curl_slist* const longer = curl_slist_append(list.get(), line.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    static_cast<void>(list.release());
    list.reset(longer);
  }
};

struct CurlTransport::State {
  CURLM* multi = nullptr;
  std::unordered_map<std::uint64_t, std::unique_ptr<Exchange>> running;
  std::vector<HttpCompletion> finished;  // not reported yet
  std::vector<Easy> idle;

  State() { idle.reserve(idle_handles_max); }
  Easy take_handle() {
    if (idle.empty()) return Easy(curl_easy_init());
    Easy easy = std::move(idle.back());
    idle.pop_back();
    curl_easy_reset(easy.get());
    return easy;
  }
};

CurlTransport::CurlTransport() : state_(std::make_unique<State>()) {
  initialise_once();
  state_->multi = curl_multi_init();
  if (state_->multi == nullptr) throw std::runtime_error("libcurl does not start: no multi handle");
}

CurlTransport::~CurlTransport() {
  cancel_all();
  state_->idle.clear();
  curl_multi_cleanup(state_->multi);
}

void CurlTransport::start(std::uint64_t id, HttpRequest request,
                          std::chrono::milliseconds timeout) {
  auto exchange = std::make_unique<Exchange>();
  exchange->id = id;
  exchange->request = std::move(request);
  const auto refuse = [&](std::string reason, HttpOutcome outcome = HttpOutcome::refused_locally) {
    exchange->response.outcome = outcome;
    exchange->response.error = std::move(reason);
    state_->finished.push_back({id, std::move(exchange->response)});
  };
  // Not the request's fault, and it has not left: it may be tried again.
  const auto refuse_without_memory = [&] {
    refuse("libcurl has no memory for a request", HttpOutcome::not_connected);
  };
  if (!is_clean(exchange->request))
    return refuse("a line break or NUL in the request's URL or headers");
  exchange->easy = state_->take_handle();
  if (exchange->easy == nullptr) return refuse_without_memory();
  const CURLcode prepared = exchange->prepare(timeout);
  if (prepared == CURLE_OUT_OF_MEMORY) return refuse_without_memory();
  if (prepared != CURLE_OK) return refuse(curl_easy_strerror(prepared));
  const auto entry = state_->running.try_emplace(id).first;
  const CURLMcode added = curl_multi_add_handle(state_->multi, exchange->easy.get());
  if (added == CURLM_OK) {
    entry->second = std::move(exchange);
    return;
  }
  state_->running.erase(entry);
  if (added == CURLM_OUT_OF_MEMORY) return refuse_without_memory();
  refuse(curl_multi_strerror(added));
}

// Moves exchanges along and takes those that ended.
void CurlTransport::perform() {
  int running = 0;
  curl_multi_perform(state_->multi, &running);
  // What libcurl has told once it does not tell again: room for it first.
  if (const auto left = static_cast<std::size_t>(running); left < state_->running.size()) {
    state_->finished.reserve(state_->finished.size() + state_->running.size() - left);
  }
  int queued = 0;
  while (const CURLMsg* const message = curl_multi_info_read(state_->multi, &queued)) {
    if (message->msg != CURLMSG_DONE) continue;
    void* self = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &self);
    auto& exchange = *static_cast<Exchange*>(self);
    HttpResponse& response = exchange.response;
    response.outcome = outcome_of(message->data.result, exchange.easy.get(), exchange.sent != 0,
                                  exchange.no_memory);
    long status = 0;
    curl_easy_getinfo(exchange.easy.get(), CURLINFO_RESPONSE_CODE, &status);
    response.status = static_cast<int>(status);
    std::string_view subject;
    const char* error = "";
    if (response.outcome != HttpOutcome::answered) {
      subject = subject_of(message->data.result);
      error = exchange.no_memory          ? "no memory for the answer"
              : exchange.error[0] != '\0' ? exchange.error
                                          : curl_easy_strerror(message->data.result);
    } else if (!exchange.headers_ended) {
      // libcurl takes the end of the connection for the end of the headers.
      response.outcome = HttpOutcome::lost;
      error = "the connection ended within the headers of the answer";
    }
    try {
      response.error.append(subject).append(error);
    } catch (const std::bad_alloc&) {  // The outcome says enough.
    }
    curl_multi_remove_handle(state_->multi, exchange.easy.get());
    state_->finished.push_back({exchange.id, std::move(response)});
    if (state_->idle.size() < idle_handles_max) state_->idle.push_back(std::move(exchange.easy));
    state_->running.erase(exchange.id);
  }
}

std::vector<HttpCompletion> CurlTransport::poll(std::chrono::milliseconds wait) {
  perform();
  if (state_->finished.empty()) {
    curl_multi_poll(state_->multi, nullptr, 0, static_cast<int>(wait.count()), nullptr);
    perform();
  }
  return std::exchange(state_->finished, {});
}

void CurlTransport::wake() noexcept { curl_multi_wakeup(state_->multi); }

void CurlTransport::cancel_all() noexcept {
  for (const auto& [id, exchange] : state_->running) {
    curl_multi_remove_handle(state_->multi, exchange->easy.get());
  }
  state_->running.clear();
  state_->finished.clear();
}

}  // namespace spillway::transport
