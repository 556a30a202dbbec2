package onefold;

import java.io.File;
import java.io.RandomAccessFile;
import java.net.URI;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

import org.apache.avro.Schema;
import org.apache.avro.generic.IndexedRecord;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hudi.client.HoodieJavaWriteClient;
import org.apache.hudi.client.WriteStatus;
import org.apache.hudi.client.common.HoodieJavaEngineContext;
import org.apache.hudi.common.config.HoodieMetadataConfig;
import org.apache.hudi.common.engine.EngineType;
import org.apache.hudi.common.model.HoodieAvroIndexedRecord;
import org.apache.hudi.common.model.HoodieBaseFile;
import org.apache.hudi.common.model.HoodieCommitMetadata;
import org.apache.hudi.common.model.HoodieEmptyRecord;
import org.apache.hudi.common.model.HoodieKey;
import org.apache.hudi.common.model.HoodieRecord;
import org.apache.hudi.common.schema.HoodieSchema;
import org.apache.hudi.common.table.HoodieTableMetaClient;
import org.apache.hudi.common.table.TableSchemaResolver;
import org.apache.hudi.common.table.timeline.HoodieArchivedTimeline;
import org.apache.hudi.common.table.timeline.HoodieInstant;
import org.apache.hudi.common.table.timeline.HoodieTimeline;
import org.apache.hudi.common.table.timeline.TimelineUtils;
import org.apache.hudi.common.table.view.FileSystemViewManager;
import org.apache.hudi.common.table.view.HoodieTableFileSystemView;
import org.apache.hudi.common.util.CommitUtils;
import org.apache.hudi.common.util.Option;
import org.apache.hudi.config.HoodieWriteConfig;
import org.apache.hudi.storage.StoragePath;
import org.apache.hudi.storage.hadoop.HadoopStorageConfiguration;
import org.apache.hudi.table.HoodieJavaTable;
import org.apache.hudi.table.HoodieTable;
import org.apache.hudi.table.action.rollback.RollbackUtils;
import org.apache.hudi.table.marker.WriteMarkersFactory;
import org.apache.parquet.avro.AvroParquetReader;
import org.apache.parquet.avro.AvroReadSupport;
import org.apache.parquet.hadoop.ParquetReader;

/**
 * One Hudi table, written by Hudi's own Java engine. Compiled by Janino when the JVM starts: no lambdas, no generics
 * that have to be inferred.
 *
 * What is kept in the metadata of every commit of ours: onefold.number, one more than that of the commit before, and
 * onefold.token.OWNER for every owner. Numbers, not times, say which commit is the newest. All that reads or changes
 * the timeline runs under a lock that this process holds until it is done or dead: also when its parent died first.
 */
public class HudiTable {
  private static final String NUMBER = "onefold.number";
  private static final String TOKEN = "onefold.token.";
  private static final String OURS = "onefold.";
  private static Configuration made;
  private static final int KEY = 0;
  private static final int PARTITION = 1;
  private static final int ROW = 2;

  private final String base;
  private final Map options;
  private final Configuration hadoop;
  private final boolean isLocal;
  private final long lockMillis;
  private final Map seen = new HashMap();
  private final Map pending = new HashMap();

  /** settings: of Hadoop's client, for a table in a store; there the caller keeps writers apart, see deciding.py. */
  public HudiTable(String base, Map options, Map settings, long lockMillis) {
    this.base = base;
    this.options = options;
    this.isLocal = !base.contains("://");
    this.hadoop = new Configuration(hadoop());
    for (Object each : settings.entrySet()) {
      this.hadoop.set((String) ((Map.Entry) each).getKey(), (String) ((Map.Entry) each).getValue());
    }
    this.lockMillis = lockMillis;
  }

  /** Lays out a new table in an empty folder. */
  public void create(String name, Map settings) throws Exception {
    Properties properties = new Properties();
    properties.putAll(settings);
    HoodieTableMetaClient.newTableBuilder().fromProperties(properties).setTableName(name)
        .initTable(storage(), base);
  }

  /** Ends what others began here and did not complete; nothing of it can be completed later. Gives the state. */
  public Map open() throws Exception {
    Lock lock = new Lock();
    try {
      HoodieTableMetaClient meta = meta();
      if (!pendingIn(meta).isEmpty()) {
        HoodieJavaWriteClient client = client(meta, null);
        try {
          client.rollbackFailedWrites(meta);
        } finally {
          client.close();
        }
        meta = meta();
      }
      return state(meta);
    } finally {
      lock.release();
    }
  }

  /** What our newest commit says: every key of it that begins with "onefold."; empty when there is none. */
  public Map look() throws Exception {
    return state(meta());
  }

  /** The table's own settings. */
  public Map settings() {
    return new HashMap(meta().getTableConfig().getProps());
  }

  /** The columns of the table, without Hudi's own, as an Avro schema; "" when there is none yet. */
  public String schema() throws Exception {
    Option found = new TableSchemaResolver(meta()).getTableSchemaIfPresent(false);
    return found.isPresent() ? ((HoodieSchema) found.get()).toAvroSchema().toString() : "";
  }

  /**
   * Begins an instant that nobody sees. expected: what the token begins with, "" for none; null: any. Gives "begun" and
   * the instant; or "moved" and the token that is there.
   */
  public List begin(String schema, String owner, String expected) throws Exception {
    Lock lock = new Lock();
    HoodieJavaWriteClient client = null;
    boolean isBegun = false;
    try {
      HoodieTableMetaClient meta = meta();
      String found = token(state(meta), owner);
      if (!isExpected(found, expected)) {
        return answer("moved", found);
      }
      client = client(meta, schema);
      String instant = client.startCommit();
      demandNewest(meta(), instant);
      pending.put(instant, new Pending(client));
      isBegun = true;
      return answer("begun", instant);
    } finally {
      lock.release();
      if (!isBegun && client != null) {
        client.close();
      }
    }
  }

  /**
   * Writes its rows. file: a Parquet file of (key, partition, row), "" for no rows; a row of NULL is a delete. Gives
   * "written", the instant and the files, below the table.
   */
  public List fill(String instant, String file, String operation) throws Exception {
    Pending written = (Pending) pending.get(instant);
    boolean isWritten = false;
    try {
      List records = file.isEmpty() ? new ArrayList() : records(file);
      written.statuses = operation.equals("upsert")
          ? written.client.upsert(records, instant) : written.client.insert(records, instant);
      List answer = answer("written", instant);
      for (Object each : written.statuses) {
        WriteStatus status = (WriteStatus) each;
        if (status.hasErrors()) {
          throw new IllegalStateException("not written: " + status.getErrors() + status.getGlobalError());
        }
        if (status.getStat().getPath() != null) {
          answer.add(status.getStat().getPath());
        }
      }
      isWritten = true;
      return answer;
    } finally {
      if (!isWritten) {
        forget(instant);
      }
    }
  }

  /** Shows what was written and moves the token, in one step. Gives "done"; or "moved" or "gone" and what is there. */
  public List commit(String instant, String owner, String expected, String next) throws Exception {
    Pending written = (Pending) pending.remove(instant);
    Lock lock = null;
    try {
      lock = new Lock();
      Map state = new HashMap();
      List answer = judged(instant, owner, expected, next, state);
      if (!answer.get(0).equals("sealed")) {
        return answer;
      }
      boolean isDone = written.client.commit(instant, written.statuses, Option.of(state));
      return answer(isDone ? "done" : "gone", answer.get(1).toString());
    } finally {
      if (lock != null) {
        lock.release();
      }
      written.client.close();
    }
  }

  /** What `complete` needs to do what `commit` does: "sealed", the time and the metadata. Or "moved" or "gone". */
  public List seal(String instant, String owner, String expected, String next) throws Exception {
    Pending written = (Pending) pending.remove(instant);
    try {
      Map state = new HashMap();
      List answer = judged(instant, owner, expected, next, state);
      if (!answer.get(0).equals("sealed")) {
        return answer;
      }
      List stats = new ArrayList();
      for (Object each : written.statuses) {
        stats.add(((WriteStatus) each).getStat());
      }
      HoodieCommitMetadata metadata = CommitUtils.buildMetadata(stats, new HashMap(), Option.of(state),
          written.client.getOperationType(), written.client.getConfig().getWriteSchema(), "commit");
      answer = answer("sealed", written.client.createNewInstantTime(false));
      answer.add(metadata.toJsonString());
      return answer;
    } finally {
      written.client.close();
    }
  }

  /**
   * Shows what `seal` told of, whoever wrote it, unless that was done. As Hudi's commit does, but for the time of
   * completion: it is a part of the name of what is created, so two that complete an instant create the same. Gives
   * "done"; or "gone" when it is not there any more, or when a commit before it is not: somebody restored the table to
   * an earlier state.
   */
  public String complete(String instant, String completion, String sealed) throws Exception {
    HoodieTableMetaClient meta = meta();
    if (!pendingIn(meta).contains(instant)) {
      return instants().contains(instant) ? "done" : "gone";
    }
    demandNotUndone(meta, instant);
    HoodieCommitMetadata metadata =
        (HoodieCommitMetadata) HoodieCommitMetadata.fromJsonString(sealed, HoodieCommitMetadata.class);
    if (number(metadata.getExtraMetadata()) > number(state(meta)) + 1L) {
      return "gone";
    }
    HoodieJavaWriteClient client = client(meta, metadata.getMetadata(HoodieCommitMetadata.SCHEMA_KEY));
    try {
      HoodieTable table = HoodieJavaTable.create(client.getConfig(), client.getEngineContext(), meta);
      table.finalizeWrite(client.getEngineContext(), instant, metadata.getWriteStats());
      String name = meta.getInstantFileNameGenerator().getFileName(
          completion, meta.createNewInstant(HoodieInstant.State.COMPLETED, "commit", instant));
      meta.getStorage().createImmutableFileInPath(new StoragePath(meta.getTimelinePath(), name),
          TimelineUtils.getHoodieInstantWriterOption(meta.getActiveTimeline(), Option.of(metadata)));
      WriteMarkersFactory.get(client.getConfig().getMarkersType(), table, instant)
          .quietDeleteMarkerDir(client.getEngineContext(), 1);
      return "done";
    } finally {
      client.close();
    }
  }

  /** An instant that is being undone looks like one that is under way, and its files may be gone already. */
  private static void demandNotUndone(HoodieTableMetaClient meta, String instant) throws Exception {
    HoodieTimeline undoing = meta.getActiveTimeline().getRollbackAndRestoreTimeline().filterInflightsAndRequested();
    for (Object each : undoing.getInstants()) {
      HoodieInstant one = (HoodieInstant) each;
      if (one.getAction().equals(HoodieTimeline.RESTORE_ACTION)
          || RollbackUtils.getRollbackPlan(meta, one).getInstantToRollback().getCommitTime().equals(instant)) {
        throw new IllegalStateException("somebody has begun to restore the table, and must end that first: " + one);
      }
    }
  }

  /** Instants that are under way. */
  public List pending() {
    return pendingIn(meta());
  }

  /** Ends the work on an instant, and leaves it as it is. */
  public void forget(String instant) throws Exception {
    Pending written = (Pending) pending.remove(instant);
    if (written != null) {
      written.client.close();
    }
  }

  /** Rolls an instant back. Its files go with it; those that stay are found by maintenance. */
  public void abandon(String instant) throws Exception {
    forget(instant);
    Lock lock = new Lock();
    try {
      HoodieTableMetaClient meta = meta();
      if (pendingIn(meta).contains(instant)) {
        HoodieJavaWriteClient client = client(meta, null);
        try {
          client.rollback(instant);
        } finally {
          client.close();
        }
      }
    } finally {
      lock.release();
    }
  }

  /** Lets Hudi remove file versions that a newer one replaced, and archive its timeline. */
  public void maintain() throws Exception {
    Lock lock = new Lock();
    try {
      HoodieTableMetaClient meta = meta();
      HoodieJavaWriteClient client = client(meta, null);
      try {
        client.clean();
        client.archive();
      } finally {
        client.close();
      }
    } finally {
      lock.release();
    }
  }

  /** The state, and after it the files that hold all rows, below the table: of one version of it. */
  public List snapshot() throws Exception {
    HoodieTableMetaClient meta = meta();
    List found = new ArrayList();
    found.add(state(meta));
    HoodieTableFileSystemView view = FileSystemViewManager.createInMemoryFileSystemView(
        new HoodieJavaEngineContext(storage()), meta,
        HoodieMetadataConfig.newBuilder().enable(false).build());
    try {
      view.loadAllPartitions();
      for (Object each : view.getLatestBaseFiles().toArray()) {
        found.add(below(((HoodieBaseFile) each).getStoragePath().toUri().getPath()));
      }
    } finally {
      view.close();
    }
    return found;
  }

  /** Instants that are completed, active or archived, or pending: files of others are nobody's. */
  public List instants() throws Exception {
    HoodieTableMetaClient meta = meta();
    List found = new ArrayList();
    for (Object each : meta.getActiveTimeline().getInstants()) {
      found.add(((HoodieInstant) each).requestedTime());
    }
    for (Object each : meta.getArchivedTimeline().getInstants()) {
      found.add(((HoodieInstant) each).requestedTime());
    }
    return found;
  }

  private String below(String path) {
    String top = new Path(base).toUri().getPath();
    return path.startsWith(top + "/") ? path.substring(top.length() + 1) : path;
  }

  /** The oldest instant that is not archived; "" when there is none. */
  public String oldest() {
    Option first = meta().getActiveTimeline().firstInstant();
    return first.isPresent() ? ((HoodieInstant) first.get()).requestedTime() : "";
  }

  // -------------------------------------------------------------------------------------------------------- timeline

  private HoodieTableMetaClient meta() {
    return HoodieTableMetaClient.builder().setConf(storage()).setBasePath(base)
        .setLoadActiveTimelineOnLoad(true).build();
  }

  private Map state(HoodieTableMetaClient meta) throws Exception {
    HoodieTimeline completed = meta.getActiveTimeline().getCommitsTimeline().filterCompletedInstants();
    Map newest = newest(completed, new HashMap());
    if (newest.isEmpty()) {
      HoodieArchivedTimeline archived = meta.getArchivedTimeline();
      if (!archived.getCommitsTimeline().empty()) {
        archived.loadCompletedInstantDetailsInMemory();
        newest = newest(archived.getCommitsTimeline().filterCompletedInstants(), newest);
      }
    }
    return new HashMap(newest);
  }

  private Map newest(HoodieTimeline timeline, Map newest) throws Exception {
    for (Object each : timeline.getInstants()) {
      HoodieInstant instant = (HoodieInstant) each;
      String name = instant.requestedTime() + "_" + instant.getCompletionTime();
      Map ours = (Map) seen.get(name);
      if (ours == null) {
        ours = new HashMap();
        HoodieCommitMetadata metadata = timeline.readCommitMetadata(instant);
        for (Object entry : metadata.getExtraMetadata().entrySet()) {
          String key = (String) ((Map.Entry) entry).getKey();
          if (key.startsWith(OURS)) {
            ours.put(key, ((Map.Entry) entry).getValue());
          }
        }
        seen.put(name, ours);
      }
      if (number(ours) > number(newest)) {
        newest = ours;
      }
    }
    return newest;
  }

  private static long number(Map state) {
    String number = (String) state.get(NUMBER);
    return number == null ? 0L : Long.parseLong(number);
  }

  private static String token(Map state, String owner) {
    String found = (String) state.get(TOKEN + owner);
    return found == null ? "" : found;
  }

  private static boolean isExpected(String found, String expected) {
    return expected == null || (expected.isEmpty() ? found.isEmpty() : found.startsWith(expected));
  }

  private static List pendingIn(HoodieTableMetaClient meta) {
    List found = new ArrayList();
    for (Object each : meta.getActiveTimeline().getCommitsTimeline().filterInflightsAndRequested().getInstants()) {
      found.add(((HoodieInstant) each).requestedTime());
    }
    return found;
  }

  private static void demandNewest(HoodieTableMetaClient meta, String started) {
    for (Object each : meta.getActiveTimeline().getInstants()) {
      HoodieInstant instant = (HoodieInstant) each;
      if (instant.isCompleted() && (instant.requestedTime().compareTo(started) >= 0
          || (instant.getCompletionTime() != null && instant.getCompletionTime().compareTo(started) >= 0))) {
        throw new IllegalStateException("the clock is behind the table: " + started + " after " + instant);
      }
    }
  }

  /** Whether the token is the expected one, and the instant under way; then `state` becomes what the commit says. */
  private List judged(String instant, String owner, String expected, String next, Map state) throws Exception {
    HoodieTableMetaClient meta = meta();
    state.putAll(state(meta));
    String found = token(state, owner);
    if (!isExpected(found, expected)) {
      return answer("moved", found);
    }
    if (!pendingIn(meta).contains(instant)) {
      return answer("gone", found);
    }
    if (next != null) {
      state.put(TOKEN + owner, next);
    }
    state.put(NUMBER, String.valueOf(number(state) + 1L));
    return answer("sealed", found);
  }

  private static List answer(String word, String about) {
    List answer = new ArrayList();
    answer.add(word);
    answer.add(about);
    return answer;
  }

  // ---------------------------------------------------------------------------------------------------------- writing

  private HoodieJavaWriteClient client(HoodieTableMetaClient meta, String schema) {
    Properties properties = new Properties();
    properties.putAll(options);
    properties.setProperty("hoodie.write.table.version",
        String.valueOf(meta.getTableConfig().getTableVersion().versionCode()));
    if (!properties.containsKey("hoodie.metadata.enable")) {
      properties.setProperty("hoodie.metadata.enable",
          String.valueOf(meta.getTableConfig().isMetadataTableAvailable()));
    }
    HoodieWriteConfig.Builder builder = HoodieWriteConfig.newBuilder().withPath(base)
        .forTable(meta.getTableConfig().getTableName()).withEngineType(EngineType.JAVA).withProps(properties);
    if (schema != null) {
      builder.withSchema(schema);
    }
    return new HoodieJavaWriteClient(
        new HoodieJavaEngineContext(storage()), builder.build());
  }

  private static List records(String file) throws Exception {
    List records = new ArrayList();
    ParquetReader reader = AvroParquetReader.builder(new Path("file://" + file)).withConf(hadoop()).build();
    try {
      for (Object each = reader.read(); each != null; each = reader.read()) {
        IndexedRecord record = (IndexedRecord) each;
        HoodieKey key = new HoodieKey(record.get(KEY).toString(), record.get(PARTITION).toString());
        IndexedRecord row = (IndexedRecord) record.get(ROW);
        if (row == null) {
          records.add(new HoodieEmptyRecord(key, HoodieRecord.HoodieRecordType.AVRO));
        } else {
          records.add(new HoodieAvroIndexedRecord(key, row));
        }
      }
    } finally {
      reader.close();
    }
    return records;
  }

  private HadoopStorageConfiguration storage() {
    return new HadoopStorageConfiguration(hadoop);
  }

  private static synchronized Configuration hadoop() {
    if (made != null) {
      return made;
    }
    Configuration hadoop = new Configuration();
    try {
      // A checksum beside every file could not be synced with it.
      FileSystem.get(URI.create("file:///"), hadoop).setWriteChecksum(false);
    } catch (java.io.IOException error) {
      throw new IllegalStateException(error);
    }
    hadoop.setBoolean("parquet.avro.write-old-list-structure", false);
    hadoop.setBoolean("parquet.avro.add-list-element-records", false);
    made = hadoop;
    return hadoop;
  }

  /** What is written under an instant, and by which client. */
  private static class Pending {
    final HoodieJavaWriteClient client;
    List statuses;

    Pending(HoodieJavaWriteClient client) {
      this.client = client;
    }
  }

  // ------------------------------------------------------------------------------------------------------------- lock

  /**
   * The table's lock. Between processes: a lock on a file, which ends with this process. Within one: a semaphore, for
   * closing any channel on the file would end the lock.
   */
  private class Lock {
    private final Semaphore mine;
    private RandomAccessFile file;

    Lock() throws Exception {
      if (!isLocal) {
        mine = new Semaphore(0);
        return;
      }
      File place = new File(base, ".hoodie/onefold.lock");
      String name = "onefold.lock." + place.getCanonicalPath();
      Properties all = System.getProperties();
      synchronized (all) {
        if (all.get(name) == null) {
          all.put(name, new Semaphore(1));
        }
        mine = (Semaphore) all.get(name);
      }
      long until = System.nanoTime() + lockMillis * 1000000L;
      if (!mine.tryAcquire(lockMillis, TimeUnit.MILLISECONDS)) {
        throw new java.util.concurrent.TimeoutException("the table is locked by this process");
      }
      boolean isLocked = false;
      try {
        file = new RandomAccessFile(place, "rw");
        while (file.getChannel().tryLock() == null) {
          if (System.nanoTime() > until) {
            throw new java.util.concurrent.TimeoutException("the table is locked by another process");
          }
          Thread.sleep(10);
        }
        isLocked = true;
      } finally {
        if (!isLocked) {
          release();
        }
      }
    }

    void release() {
      try {
        if (file != null) {
          file.close();
        }
      } catch (java.io.IOException ignored) {
        throw new IllegalStateException(ignored);
      } finally {
        mine.release();
      }
    }
  }
}
