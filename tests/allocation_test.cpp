// SPDX-License-Identifier: Apache-2.0
//
// Recording allocates nothing after a thread's first records, and neither do the encoders: every
// allocation of this thread is counted, by operator new and, where no sanitizer owns it, by malloc.
#include <cstdlib>
#include <new>

#include <support/engine_fixture.hpp>
#include <support/records.hpp>

#include <spillway/encoders/emf.hpp>
#include <spillway/encoders/log_event.hpp>
#include <spillway/encoders/otlp_logs.hpp>
#include <spillway/encoders/otlp_metrics.hpp>
#include <spillway/encoders/otlp_traces.hpp>
#include <spillway/encoders/put_log_events.hpp>
#include <spillway/encoders/put_metric_data.hpp>
#include <spillway/encoders/xray.hpp>
#include <spillway/middleware/chain.hpp>
#include <spillway/middleware/client_address.hpp>
#include <spillway/middleware/cors.hpp>
#include <spillway/middleware/error_body.hpp>
#include <spillway/middleware/health/endpoints.hpp>
#include <spillway/middleware/observability.hpp>
#include <spillway/middleware/rate_limit/local_store.hpp>
#include <spillway/middleware/rate_limit/rate_limiter.hpp>
#include <spillway/middleware/request_id.hpp>
#include <spillway/middleware/resilience/breaker_step.hpp>
#include <spillway/middleware/resilience/bulkhead_step.hpp>
#include <spillway/middleware/resilience/deadline_step.hpp>
#include <spillway/middleware/resilience/load_shedding_step.hpp>
#include <spillway/middleware/signing/signer.hpp>
#include <spillway/middleware/signing/verifier_step.hpp>

#if defined(__GNUC__) && !defined(__clang__)
// g++ inlines the operators below and takes their malloc() and free() for a mismatch.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace {

constinit thread_local bool counting = false;
constinit thread_local std::size_t allocations = 0;

void count() noexcept {
  if (counting) ++allocations;
}

}  // namespace

void* operator new(std::size_t bytes) {
  count();
  if (void* const memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
  count();
  return std::malloc(bytes);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  count();
  const auto step = static_cast<std::size_t>(alignment);
  if (void* const memory = std::aligned_alloc(step, (bytes + step - 1) / step * step))
    return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*bytes*/) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t /*alignment*/) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*bytes*/, std::align_val_t /*alignment*/) noexcept {
  std::free(memory);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__GLIBC__)
extern "C" {
void* __libc_malloc(std::size_t);  // NOLINT: glibc's names
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* malloc(std::size_t bytes) {
  count();
  return __libc_malloc(bytes);
}
void* calloc(std::size_t members, std::size_t bytes) {
  count();
  return __libc_calloc(members, bytes);
}
void* realloc(void* memory, std::size_t bytes) {
  count();
  return __libc_realloc(memory, bytes);
}
}
#endif

namespace spillway {
namespace {

template <class Body>
std::size_t allocations_in(Body&& body) {
  allocations = 0;
  counting = true;
  body();
  counting = false;
  return allocations;
}

class AllocationTest : public ::testing::Test {
 protected:
  testing::AwsEnvironment environment;
};

TEST_F(AllocationTest, TheCounterCounts) {
  EXPECT_GE(allocations_in([] { delete new std::string(100, 'x'); }), 1U);
}

TEST_F(AllocationTest, RecordingAllocatesNothingAfterWarmUp) {
  testing::TestEngine test(testing::aws_config());
  const Counter requests = test.engine.counter("Requests");
  const Gauge depth = test.engine.gauge("Depth");
  const Histogram latency = test.engine.histogram("Latency");
  const auto per_tenant = test.engine.per(requests, ContextField::tenant, "TenantID");
  const std::string text = "nine char";
  const std::string request_id = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

  const auto record = [&](int i) {
    const Context context{{.tenant = "acme", .user = "u-17", .request_id = request_id}};
    const Scope scope(context);
    Span root = test.engine.span("orders");
    requests.add(1);
    requests.add(0.5);
    per_tenant.add(1);
    depth.set(i);
    latency.record(i * 0.25);
    latency.record(-i);
    latency.sample(i);
    SPILLWAY_INFO(test.engine, "order placed", {"order_id", i}, {"total", i * 1.5}, {"text", text});
    Span child = test.engine.span("charge-card");
    child.annotate("provider", "acme");
    child.annotate("request", request_id);
    child.annotate("cents", i);
    child.annotate("ratio", 0.5);
    child.http_request({.method = "POST", .url = "https://pay.example/charges"});
    child.http_response(200, 17);
  };
  for (int i = 0; i < 1000; ++i) record(i);
  test.engine.flush(std::chrono::seconds(1));
  EXPECT_EQ(allocations_in([&] {
              for (int i = 0; i < 1000; ++i) record(i);
            }),
            0U);
  // Neither in the interval behind it, with fresh banks, nor when the ring is full.
  test.engine.flush(std::chrono::seconds(1));
  EXPECT_EQ(allocations_in([&] {
              for (int i = 0; i < 20'000; ++i) record(i);
            }),
            0U);
  EXPECT_GT(test.engine.stats().logs.dropped_for(DropCause::ring_full), 0U);
}

TEST_F(AllocationTest, EncodersAllocateNothingOnceTheyHaveRun) {
  using namespace detail;
  testing::Points points({{"Route", "/orders"}, {"Service", "orders"}});
  points.counter("Requests", 1234, 10);
  points.gauge("Depth", 1, 9, 4, 30, 7);
  points.histogram("Latency", testing::rising_values(200, 3));

  const ContextTexts context{"acme", "u-17", "r-1", {0x6b00e3540f1e2d3c, 0x4b5a69788796a5b4}};
  const SiteInfo site{Severity::warn,
                      "order placed",
                      "orders.cpp",
                      42,
                      {{"order_id", ValueType::integer}, {"http.url", ValueType::string}}};
  testing::Packed values;
  values.number(std::int64_t{17}).string("/orders?q=\"a longer text with quotes\"");
  const LogView log{&site, testing::test_time_ms * 1'000'000, 7, &context, values.bytes()};

  testing::Packed entries;
  const auto text = [&](std::string_view name, EntryClass entry_class, std::string_view value) {
    entries.entry(intern_name(name), entry_class, ValueType::string).string(value);
  };
  text("not-legal", EntryClass::annotation, "yes");
  text("provider", EntryClass::annotation, "acme");
  text("provider", EntryClass::annotation, "of two, this one");
  text("method", EntryClass::http_request, "POST");
  text("sanitized_query", EntryClass::sql, "select \"x\"");
  text("shop", EntryClass::metadata_namespace, "");
  text("basket", EntryClass::metadata, "three things");
  text("table_name", EntryClass::aws, "orders");
  std::vector<SpanView> spans;
  for (std::uint64_t id = 1; id <= 20; ++id) {
    spans.push_back({"POST /orders",
                     log.time_ns,
                     log.time_ns + 5'000'000,
                     {0, id, id / 2, 1, context.trace_id, span_fault, 500, 0},
                     entries.bytes()});
  }

  LogEncoder logs("orders");
  OtlpLogEncoder otlp_logs;
  OtlpMetricEncoder otlp_metrics;
  OtlpSpanEncoder otlp_spans(100'000);
  XrayEncoder xray({"orders", "1.0", 8'000});
  Payload payload = testing::make_payload();
  ByteBuffer body;
  const auto encode_all = [&] {
    payload.clear();
    body.clear();
    encode_emf(points.points, {"Shop"}, payload);
    for (const MetricPoint& point : points.points) {
      encode_metric_datums(point, DatumFormat::json, payload);
      encode_metric_datums(point, DatumFormat::cbor, payload);
      otlp_metrics.encode(point, point.time_ms + 1000, payload);
    }
    for (const std::size_t bytes_max : {100'000U, 1024U}) {
      const std::size_t offset = payload.bytes.size();
      logs.append_json(log, bytes_max, payload.bytes);
      logs.append_console(log, bytes_max, payload.bytes);
      otlp_logs.append(log, bytes_max, payload.bytes);
      payload.end_item(offset, 1);
    }
    otlp_spans.encode(spans, context, payload);
    xray.encode(spans, context, payload);
    append_put_log_events(payload, "group", "stream", body);
    append_put_trace_segments(payload, body);
  };
  encode_all();
  EXPECT_EQ(allocations_in(encode_all), 0U);
}

// A step that refuses every other request, with a problem document.
struct RefusesSome {
  struct State {};
  middleware::Verdict before(State& /*state*/, middleware::Exchange& exchange) {
    return ++requests % 2 == 0 ? exchange.refuse(429, "the limit of 100 requests is reached")
                               : middleware::Verdict::proceed;
  }
  int requests = 0;
};

TEST_F(AllocationTest, AChainAllocatesNothingForARequest) {
  testing::TestEngine test(testing::aws_config());
  const middleware::Routes routes{{"GET", "/orders/{id}"}};
  middleware::ObservabilityOptions options;
  options.operation = middleware::from_header("X-Amz-Target");
  options.log_body_bytes_max = 100;
  options.slow_request = std::chrono::microseconds(1);
  middleware::RequestId request_id;
  middleware::Observability observability(test.engine, routes, options);
  middleware::ClientAddress client_address({.trusted_proxies = {"203.0.113.0/24"}});
  middleware::Cors cors({.origins = {"https://*.shop.example"}, .credentials = true});
  middleware::ErrorBody error_body;
  middleware::LocalRateStore store;
  middleware::RateLimiter limiter(
      test.engine, store,
      {.policies = {{.name = "tenant",
                     .limit = {.permits = 1'000'000, .window = std::chrono::seconds(1)},
                     .by = {{middleware::RateKeySource::tenant}}}}});
  middleware::DeadlineStep deadline(test.engine, routes);
  middleware::BreakerStep breaker(test.engine, routes);
  middleware::BulkheadStep bulkhead(test.engine, {.bulkhead = {.concurrency_per_tenant_max = 10}});
  RefusesSome refuses;
  const middleware::Chain chain(routes, client_address, request_id, observability, cors, error_body,
                                limiter, deadline, breaker, bulkhead, refuses);
  const std::vector<middleware::HeaderField> fields{
      {"X-Tenant-ID", "acme"},
      {"X-Amz-Target", "Orders.Get"},
      {"X-Forwarded-For", "2001:db8::5"},
      {"Origin", "https://a.shop.example"},
      {"X-Request-Timeout", "5S"},
      {"X-Amzn-Trace-Id", "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Sampled=1"}};
  const std::span<const middleware::HeaderField> list(fields);
  const auto serve = [&] {
    middleware::RequestView view{.method = "GET",
                                 .host = "shop.example",
                                 .peer_address = "203.0.113.9",
                                 .headers = middleware::headers_of(list),
                                 .body = "{}"};
    view.target("/orders/17?page=2");
    auto exchange = chain.begin(view);
    if (!exchange.has_reply()) {
      const auto current = exchange.enter();
      exchange.respond({.status = 200});
    }
    exchange.finish({.status = exchange.has_reply() ? exchange.reply().status : 200,
                     .body = exchange.reply().body});
  };
  for (int i = 0; i < 1000; ++i) serve();
  test.engine.flush(std::chrono::seconds(1));
  EXPECT_EQ(allocations_in([&] {
              for (int i = 0; i < 1000; ++i) serve();
            }),
            0U);
}

TEST_F(AllocationTest, SignedRequestsAreVerifiedWithoutAny) {
  using namespace middleware;
  testing::TestEngine test(testing::aws_config());
  const auto keys = std::make_shared<SigningKeys>(
      std::vector<SigningKey>{{.id = "orders-1", .secret = std::string(32, 'k')}});
  const RequestSigner signer(keys);
  const Routes routes{{"POST", "/orders"}};
  SignatureStep signature(test.engine, routes, keys);
  const Chain chain(routes, signature);
  constexpr std::size_t requests = 600;
  std::vector<transport::HttpRequest> sent(requests);
  std::vector<std::vector<HeaderField>> fields(requests);
  std::vector<std::span<const HeaderField>> lists(requests);
  for (std::size_t i = 0; i < requests; ++i) {  // Each has a nonce of its own.
    sent[i].method = "POST";
    sent[i].origin = "http://orders.internal";
    sent[i].path = "/orders";
    sent[i].headers = {{"Content-Type", "application/json"}, {"X-Tenant-ID", "acme"}};
    sent[i].body = R"({"total":17})";
    ASSERT_EQ(signer.sign(sent[i], std::chrono::system_clock::now()), "");
    for (const auto& header : sent[i].headers) fields[i].push_back({header.name, header.value});
    lists[i] = fields[i];
  }
  int accepted = 0;
  const auto serve = [&](std::size_t i, std::string_view host) {
    const std::string& body = sent[i].body;
    auto exchange = chain.begin({.method = "POST",
                                 .path = "/orders",
                                 .host = host,
                                 .headers = headers_of(lists[i]),
                                 .body = body,
                                 .body_bytes = static_cast<std::int64_t>(body.size())});
    if (!exchange.has_reply()) ++accepted;
    exchange.finish({.status = exchange.has_reply() ? exchange.reply().status : 200});
  };
  const auto serve_all = [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; ++i) {
      serve(i, "orders.internal");
      serve(i, "orders.internal");  // Replayed.
      serve(i, "other.internal");   // Of another text than was signed.
    }
  };
  serve_all(0, requests / 2);
  test.engine.flush(std::chrono::seconds(1));
  EXPECT_EQ(allocations_in([&] { serve_all(requests / 2, requests); }), 0U);
  EXPECT_EQ(accepted, static_cast<int>(requests));
}

TEST_F(AllocationTest, ARequestThatIsSentAgainIsSignedWithoutAny) {
  using namespace middleware;
  const RequestSigner signer(std::make_shared<SigningKeys>(std::vector<SigningKey>{
      {.id = "orders-2026-11-and-a-half", .secret = std::string(32, 'k')}}));
  transport::HttpRequest request;
  request.method = "POST";
  request.origin = "https://Orders.of-all-countries.internal.example:8443";
  request.path = "/orders";
  request.headers = {{"Content-Type", "application/json"},
                     {"X-Tenant-ID", std::string(100, 't')},
                     {"Idempotency-Key", std::string(60, 'i')}};
  request.body = std::string(10'000, 'x');
  const auto sign = [&] {
    ASSERT_EQ(signer.sign(request, std::chrono::system_clock::now()), "");
    ASSERT_EQ(request.headers.size(), 6U);
  };
  for (int i = 0; i < 10; ++i) sign();
  const std::string before = request.headers.back().value;
  EXPECT_EQ(allocations_in([&] {
              for (int i = 0; i < 1000; ++i) sign();
            }),
            0U);
  EXPECT_NE(request.headers.back().value, before) << "another nonce, another signature";
}

TEST_F(AllocationTest, SheddingAllocatesNothingForAdmittedAndRefusedRequests) {
  using namespace middleware;
  testing::TestEngine test(testing::aws_config());
  const Routes routes{{"GET", "/orders/{id}"}};
  SteadyTime now{std::chrono::seconds(1000)};
  bool queued = false;
  LoadSheddingStep shedding(
      test.engine, routes,
      {.shedder = {.threads = false}, .arrived = [&](const Exchange& exchange) {
         return exchange.begun - std::chrono::milliseconds(queued ? 50 : 0);
       }});
  const Chain chain(routes, shedding);
  const std::vector<HeaderField> fields{{"X-Request-Priority", "sheddable"}};
  const std::span<const HeaderField> list(fields);
  int refused = 0;
  const auto serve = [&](int requests) {
    for (int i = 0; i < requests; ++i) {
      now += std::chrono::milliseconds(1);
      queued = i % 400 >= 200;  // A queue that stands for longer than an interval.
      auto exchange =
          chain.begin({.method = "GET", .path = "/orders/1", .headers = headers_of(list)}, now);
      if (exchange.has_reply()) ++refused;
      exchange.finish({.status = exchange.has_reply() ? 503 : 200}, now);
    }
  };
  serve(400);
  test.engine.flush(std::chrono::seconds(1));
  refused = 0;
  EXPECT_EQ(allocations_in([&] { serve(800); }), 0U);
  EXPECT_GT(refused, 50);
  EXPECT_LT(refused, 750);
}

TEST_F(AllocationTest, LimitsBySecretKeysAndByClientAllocateNothing) {
  using namespace middleware;
  testing::TestEngine test(testing::aws_config());
  const Routes routes{{"GET", "/orders/{id}"}};
  LocalRateStore store;
  RateLimiter limiter(
      test.engine, store,
      {.policies = {{.name = "key",
                     .limit = {.permits = 100, .window = std::chrono::seconds(60)},
                     .by = {{RateKeySource::header, "X-Api-Key", true}, {RateKeySource::route}}},
                    {.name = "client",
                     .limit = {.permits = 1'000'000, .window = std::chrono::seconds(1)},
                     .by = {{RateKeySource::client_address}}}}});
  const Chain chain(routes, limiter);
  const std::vector<HeaderField> fields{{"X-Api-Key", "0f1e2d3c4b5a69788796a5b4c3d2e1f0"}};
  const std::span<const HeaderField> list(fields);
  int denied = 0;
  const auto serve = [&](int requests) {
    for (int i = 0; i < requests; ++i) {
      auto exchange = chain.begin({.method = "GET",
                                   .path = "/orders/1",
                                   .peer_address = "2001:db8::5",
                                   .headers = headers_of(list)});
      if (exchange.has_reply()) ++denied;
      exchange.finish({.status = exchange.has_reply() ? 429 : 200});
    }
  };
  serve(10);
  test.engine.flush(std::chrono::seconds(1));
  EXPECT_EQ(allocations_in([&] { serve(300); }), 0U);
  EXPECT_GT(denied, 100);
}

TEST_F(AllocationTest, HealthIsAnsweredFromMemory) {
  const middleware::HealthMonitor monitor(
      {.dependencies = {{.name = "table",
                         .check =
                             [](const middleware::CheckRun& /*run*/) {
                               return middleware::CheckResult{};
                             }}},
       .threads = false});
  const middleware::Routes routes{{"GET", "/orders/{id}"}};
  const middleware::HealthEndpoints endpoints(
      monitor, {.detail_allowed = middleware::from_networks({"10.0.0.0/8"})});
  const middleware::Chain chain(routes, endpoints);
  std::size_t bytes = 0;
  EXPECT_EQ(allocations_in([&] {
              for (const std::string_view path : {"/live", "/ready", "/health", "/health/detail"}) {
                auto exchange =
                    chain.begin({.method = "GET", .path = path, .peer_address = "10.0.0.7"});
                bytes += exchange.reply().body.size();
                exchange.finish({.status = exchange.reply().status});
              }
            }),
            0U);
  EXPECT_GT(bytes, 100U);
}

}  // namespace
}  // namespace spillway
