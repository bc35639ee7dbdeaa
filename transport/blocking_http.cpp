// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <thread>
#include <utility>

#include <spillway/transport/blocking_http.hpp>
#include <spillway/transport/curl_transport.hpp>

namespace spillway::transport {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {
// stop() is seen so soon when its wake-up came before the wait.
constexpr milliseconds slice{20};
// A transport ends a request by itself; beyond this after its time-out it has lost it.
constexpr milliseconds grace{1000};
}  // namespace

BlockingHttp::BlockingHttp(std::unique_ptr<HttpTransport> transport)
    : transport_(std::move(transport)) {}
BlockingHttp::~BlockingHttp() = default;

HttpResponse BlockingHttp::send(HttpRequest request, milliseconds timeout) {
  HttpTransport* transport = nullptr;
  {
    const std::scoped_lock lock(mutex_);
    if (transport_ == nullptr) transport_ = std::make_unique<CurlTransport>();
    transport = transport_.get();
  }
  HttpResponse failed;
  failed.error = "stopped";
  if (stopped()) return failed;
  const std::uint64_t id = next_id_++;
  transport->start(id, std::move(request), timeout);
  const auto deadline = steady_clock::now() + timeout + grace;
  while (!stopped()) {
    for (HttpCompletion& completion : transport->poll(slice)) {
      if (completion.id == id) return std::move(completion.response);
    }
    if (steady_clock::now() >= deadline) {
      failed.error = "no answer within its time";
      break;
    }
  }
  transport->cancel_all();
  failed.outcome = HttpOutcome::lost;  // It may have been taken.
  return failed;
}

bool BlockingHttp::pause(milliseconds time) {
  const auto until = steady_clock::now() + time;
  while (!stopped()) {
    const auto left = std::chrono::ceil<milliseconds>(until - steady_clock::now());
    if (left <= milliseconds(0)) return true;
    std::this_thread::sleep_for(std::min(left, slice));
  }
  return false;
}

void BlockingHttp::stop() noexcept {
  stopped_.store(true, std::memory_order_relaxed);
  const std::scoped_lock lock(mutex_);
  if (transport_ != nullptr) transport_->wake();
}

}  // namespace spillway::transport
